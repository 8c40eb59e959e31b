"""Named weights of a sample as ratios of densities: functions of the event, learned with it."""
