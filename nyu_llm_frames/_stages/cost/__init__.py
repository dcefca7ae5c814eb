"""Cost: prices, token counts, what a run will cost."""
