"""A run: arguments checked, cost estimated, jobs planned and driven, results joined."""
