"""What makes labels into research: hand codes, evaluation, agreement, corrected estimates."""
