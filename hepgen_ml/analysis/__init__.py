"""What is measured on events: final states, observables, conservation laws, comparisons."""
