import resource
for limit in ("AS", "CPU", "FSIZE", "NOFILE", "NPROC"):
    number = getattr(resource, "RLIMIT_" + limit)
    for value in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (1 << 40, 1 << 40)):
        try:
            resource.setrlimit(number, value)
            print("RAISED", limit)
        except (OSError, ValueError):
            pass
