"""Numbers that a paper can rest on: hand codes, evaluation, agreement, corrected estimates."""
