import os, signal, time
if os.fork() == 0:
    os.setsid()
    for number in range(1, 64):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    if os.fork() == 0:
        for fd in range(0, 256):
            try:
                os.close(fd)
            except OSError:
                pass
        while True:
            time.sleep(0.01)
    os._exit(0)
