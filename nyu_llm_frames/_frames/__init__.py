"""The two ends that touch pandas: values out of a frame, columns beside it."""
