"""What people read of result files: tables, figures, verdicts and the page."""
