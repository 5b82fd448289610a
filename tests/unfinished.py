"""Runs that cannot finish, for the tests of commands that write files."""
import resource
import signal
import subprocess
import time


def stop(command, folder, number):
    """A signal when the first file is there: its exit code, a message, and nothing in the folder."""
    folder.mkdir()
    p = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    while p.poll() is None and not list(folder.iterdir()):
        time.sleep(0.001)
    p.send_signal(number)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 128 + number and "nothing is written" in err, (p.returncode, err)
    assert not list(folder.iterdir())
    folder.rmdir()


def interrupt(command, folder):
    """By Ctrl-C, by `kill`, by the end of the terminal."""
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        stop(command, folder, number)


def no_file_above(limit):
    """For subprocess.run: writing more bytes than that into a file fails, as on a full disk."""
    def limits():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return {"preexec_fn": limits, "restore_signals": False}


def check_said(stderr):
    assert "cannot write" in stderr and "File too large" in stderr, stderr
