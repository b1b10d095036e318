"""The examples of docs/guide/, one a page. Each runs against a daemon, again and again: it names its agents anew."""
