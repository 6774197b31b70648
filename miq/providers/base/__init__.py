"""What a provider's author imports: the contracts of the areas, and nothing of the core's machinery."""
