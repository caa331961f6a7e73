"""`stpm-bench review`: one page to choose a threshold by eye."""
