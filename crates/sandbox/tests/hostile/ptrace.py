import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for pid in (@SENTINEL@, 1, 2):
    print(libc.ptrace(16, pid, 0, 0), libc.ptrace(0x4206, pid, 0, 0))
    buffer = ctypes.create_string_buffer(64)
    class IoVec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    local = IoVec(ctypes.addressof(buffer), 64)
    print(libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(local), 1, 0))
print(libc.ptrace(0, 0, 0, 0))
