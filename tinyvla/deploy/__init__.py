"""Chapter 9: a policy as one file that acts without this package."""
