"""Prepares setproctitle in the server that engine processes are forked from.

Import this module before any code that changes environment variables. At its first use,
setproctitle locates the title's memory from the first environment variable, and it then keeps the
location. If that variable has been changed before, the title can never be set. The order of the
variables is random in Ray's workers.
"""

import setproctitle

setproctitle.getproctitle()
