"""Attribution quality and bytes per example of every encoding; see --help."""

from command import main

if __name__ == "__main__":
    main()
