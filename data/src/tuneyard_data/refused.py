# SPDX-License-Identifier: Apache-2.0
"""What is raised when data, or the tokenizer that is to read it, can't be used."""


class DataRefused(ValueError):  # noqa: N818  the data is refused; nothing went wrong
    """The message says all that is wrong and what to try, in the words of a FineTuneJob."""


class RecordsRefused(DataRefused):
    """Records can't be used; the message holds as many problems as a stage's result may."""

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report
        """One problem per line, and how many there are beyond."""
