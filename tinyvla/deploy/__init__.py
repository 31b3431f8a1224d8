"""Chapter 9 (speed): a policy as one file that acts without this package. The code is in `export`."""
