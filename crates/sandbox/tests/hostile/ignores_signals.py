import ctypes, signal
ctypes.CDLL(None).prctl(1, 0)  # PR_SET_PDEATHSIG: lives on without its parent
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
