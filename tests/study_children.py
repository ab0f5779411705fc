"""What child processes of the tests of studies do, some until they kill themselves."""

import os
import signal

import study_kinds
from precode import PrecodeFileError
from precode.study import Store, run


def compute(folder, kinds=study_kinds.KINDS):
    run(study_kinds.CONFIG, folder, kinds=kinds, progress=False)


def act(folder, count):
    compute(folder, study_kinds.acting(count, {}))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_step(folder, count, last):
    """Is killed before the given step of writing: a sync or a renaming of a file, or a command of a transaction."""
    steps = iter(range(1000))

    def step(function):
        def counted(*arguments):
            if next(steps) == last:
                die()
            return function(*arguments)

        return counted

    class Connection:
        def __init__(self, connection):
            self.connection = connection

        def execute(self, statement, *arguments):
            counts = statement.strip() and not statement.startswith("SELECT")
            return (step if counts else lambda run: run)(self.connection.execute)(statement, *arguments)

        def executemany(self, statement, rows):
            return step(self.connection.executemany)(statement, rows)

        def __getattr__(self, name):
            return getattr(self.connection, name)

    class Counted:
        def __init__(self, store):
            self._connection = Connection(store._connection)

    transaction = Store._transaction
    Store._transaction = lambda self: transaction(Counted(self))
    os.fsync, os.replace = step(os.fsync), step(os.replace)
    act(folder, count)


def die_after_two_jobs(folder, count):
    """Is killed between the files of the third job and the note that it is finished."""
    left = iter(range(2))
    note = Store._list

    def counted(self, *arguments):
        if next(left, None) is None:
            die()
        note(self, *arguments)

    Store._list = counted
    act(folder, count)


def fill(folder, bytes_allowed, thousands):
    """Runs a study with a limit to the length of files, as a quota sets one; leaves what is said of it."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_allowed, resource.RLIM_INFINITY))
    said = None
    try:
        run(study_kinds.CONFIG, folder, kinds=study_kinds.overflowing(*thousands), progress=False)
    except PrecodeFileError as error:
        said = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    folder.with_suffix(".txt").write_text(str(said))
