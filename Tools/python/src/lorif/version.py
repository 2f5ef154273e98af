"""The version of the package, which is that of the program it goes with."""

VERSION = "0.1.0"
