"""What all tests share."""

import signal

# A shell that starts pytest in the background lets it ignore SIGINT, and all that pytest starts would, too.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
