import ctypes, os, socket
def attempt(family, kind, address):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(0.2)
            s.connect(address)
            s.send(b"deltaic_marker")
            print("SENT", address)
    except (OSError, AttributeError):
        pass
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    attempt(socket.AF_INET, kind, ("127.0.0.1", @PORT@))
    attempt(socket.AF_INET6, kind, ("::1", @PORT@))
    attempt(socket.AF_INET, kind, ("1.1.1.1", 53))
    attempt(socket.AF_UNIX, kind, "@UNIX@")
    attempt(socket.AF_UNIX, kind, "\0@ABSTRACT@")
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    try:
        a, b = socket.socketpair(socket.AF_UNIX, kind)
    except OSError:
        continue
    for address in ("@UNIX@", "\0@ABSTRACT@"):
        for send in (lambda: a.sendto(b"deltaic_marker", address), lambda: a.connect(address)):
            try:
                # A connected socket sends to its peer whatever the address: that this works says nothing.
                send()
            except OSError:
                pass
libc = ctypes.CDLL(None)
print(libc.socket(2, 1, 0), libc.socket(16, 3, 0), libc.socket(17, 3, 0), libc.syscall(425, 8, 0))
