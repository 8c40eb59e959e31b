"""The command line as ``python -m hepgen_ml``."""

from hepgen_ml.cli import main

if __name__ == "__main__":
    main()
