"""Collections that several providers keep, declared once per area."""
