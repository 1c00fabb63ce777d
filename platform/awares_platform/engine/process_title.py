"""Prepares setproctitle in Python's forkserver, from which engine processes are forked.

Import this module before any code that changes environment variables. At its first use,
setproctitle finds the memory of the process title through the first environment variable. If this
variable has already been changed, setproctitle can never set the title.
"""

import setproctitle

setproctitle.getproctitle()
