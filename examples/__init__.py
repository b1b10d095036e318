"""Programs that show how Statehouse is used; run from a checkout."""
