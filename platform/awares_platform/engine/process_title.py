"""Prepares setproctitle in Python's forkserver, from which engine processes are forked.

Import this module before any code that changes environment variables. After such a change,
setproctitle could not find the memory of the process title.
"""

import setproctitle

setproctitle.getproctitle()
