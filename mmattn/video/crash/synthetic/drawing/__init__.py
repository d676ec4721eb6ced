"""How a generated clip looks."""
