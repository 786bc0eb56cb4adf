"""Messages to people, each of them one line."""


def line(message):
    """The line that tells a message; what can't be printed in it, such as the end of a line in a
    file's name or a byte there that is no UTF-8, is spelled out."""
    return "f2fd: " + "".join(letter if letter.isprintable() else ascii(letter)[1:-1]
                              for letter in message)
