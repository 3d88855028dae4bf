"""What gRPC may say of a connection that its server closes, and that is written to meanwhile.

The kernel resets it, and how its calls ended is lost, read or not: no server can help that.
"""

import re

RESET = re.compile(r"Broken pipe|Connection reset|Socket closed")
