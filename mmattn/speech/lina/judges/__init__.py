"""What tells good speech from bad: our own checks, and packages that were not trained here."""
