# SPDX-License-Identifier: Apache-2.0
"""The errors for data, or a tokenizer, that can't be used."""


class DataRefused(ValueError):  # noqa: N818  the data is refused; nothing went wrong
    """The data can't be used; the message has all problems and what to try, in terms of a FineTuneJob."""


class RecordsRefused(DataRefused):
    """Records can't be used; the message holds as many problems as a stage's result may."""

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report
        """Returns one problem per line, and the number of problems that are not shown."""
