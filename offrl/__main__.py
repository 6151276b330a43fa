"""`python -m offrl` is `offrl`."""

from offrl.cli.main import main

if __name__ == "__main__":
    main()
