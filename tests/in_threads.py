"""Several things at once."""

import threading


def in_threads(*actions):
    """Runs all actions at once and raises the first error of any of them."""
    errors, barrier = [], threading.Barrier(len(actions))

    def guarded(action):
        try:
            barrier.wait(30)
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "deadlock"
    if errors:
        raise errors[0]
