"""Behind ``mmattn fit`` and ``mmattn test``: Lightning's parts that all systems share."""
