"""What every table shares: the declarative base and the column types, named as the schema uses them.

Models hold rows, columns, statuses and the table of their allowed moves; verbs and sessions live elsewhere.
Timestamps are naive UTC. Ids are region-coded bigints that the table's own sequence gives.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from sqlalchemy import ARRAY, BigInteger, DateTime, Double, FetchedValue, LargeBinary, Numeric, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

Big = Annotated[int, mapped_column(BigInteger)]
Id = Annotated[int, mapped_column(BigInteger, primary_key=True, server_default=FetchedValue())]
LongText = Annotated[str, mapped_column(Text)]
Json = dict[str, Any]
Names = list[str]


class Base(DeclarativeBase):
    """The declarative base."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: String,
        datetime: DateTime(timezone=False),
        float: Double,
        Decimal: Numeric,
        bytes: LargeBinary,
        dict[str, Any]: JSONB,
        list[str]: ARRAY(String),
    }
