"""Money: prices, token counts, what a run will cost, and whether it may."""
