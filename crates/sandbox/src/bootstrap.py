# Runs the program, then answers for it. What it answers with, the nonce, stays unread in a pipe until the program has ended; the pipe's
# number is in no argument list, no environment and no frame that the program can walk to: `finish` is held by an iterator of C code only.
import sys
from collections import deque
from functools import partial
from posix import _exit, getpid, read, write


def main():
    path, result_fd, nonce = sys.argv[1], int(sys.argv[2]), [int(sys.argv[3])]
    sys.argv[:] = [path]
    sys.orig_argv[:] = [path]
    sys.path[:] = [folder for folder in sys.path if folder]
    pid = getpid()

    def end(answer):
        try:
            sys.stdout.flush()
        except BaseException:
            pass
        # A copy that the program forked must not answer for it.
        if getpid() == pid:
            write(result_fd, answer())
        _exit(0)

    def program():
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            source = file.read()
        # Globals as OpenAI's human-eval has them: none.
        return partial(exec, compile(source, "<program>", "exec"), {})

    def fail(error):
        def answer():
            try:
                text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            except BaseException:
                text = type(error).__name__
            return b"failed " + text[:500].encode("utf-8", "replace")

        end(answer)

    write(result_fd, b"started\n")
    try:
        deque(map(lambda step: step(), (program(), partial(end, partial(answer_with, nonce.pop())))), 0)
    except BaseException as error:
        fail(error)


def answer_with(nonce_fd):
    return b"passed " + read(nonce_fd, 64)


main()
