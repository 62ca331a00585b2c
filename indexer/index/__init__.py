"""The index: a directory, and a format (README, "Index format"). Nothing in here knows a method.

<index>/objects/<sha256>               immutable files, named by their content
<index>/versions/<v>/manifest.json     names them; v is the start of the manifest's own sha256
<index>/active                         the served version
"""
