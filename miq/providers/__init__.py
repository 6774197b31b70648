"""One folder per provider, and `base`, what a provider's author imports."""
