"""Sequential recommendation models in torch, their operations, and full ranking."""
