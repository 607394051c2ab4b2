import ctypes, os, signal
pids = [-1, 0, os.getppid(), @SENTINEL@, -@SENTINEL@, 1, *range(2, 6000)]
libc = ctypes.CDLL(None)
for pid in pids:
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGHUP):
        # To itself only what it survives.
        try:
            if pid > 0 or pid == -@SENTINEL@:
                os.kill(pid, number)
            elif pid == -1:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
for call in (libc.syscall, ):
    fd = call(434, @SENTINEL@, 0)
    if fd >= 0:
        call(424, fd, 9, 0, 0)
        print("PIDFD")
    call(129, @SENTINEL@, 9, 0)
