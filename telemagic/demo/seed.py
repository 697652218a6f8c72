"""The shop's data, the same on every machine: the products, and the SQL that makes the database.

The rows are made by the server itself from `generate_series` and a multiplicative hash (Knuth, TAOCP 3 §6.4), so
100,000 orders take a few tenths of a second and no release of PostgreSQL changes them.
"""

from __future__ import annotations

from typing import Final

CUSTOMERS: Final = 5_000
ORDERS: Final = 100_000

PRODUCTS: Final = (
    (1, "espresso machine", "kitchen", 249.00),
    (2, "coffee grinder", "kitchen", 89.50),
    (3, "cast-iron pan", "kitchen", 42.00),
    (4, "chef's knife", "kitchen", 64.90),
    (5, "desk lamp", "office", 35.75),
    (6, "standing desk", "office", 489.00),
    (7, "notebook, dotted", "office", 7.20),
    (8, "fountain pen", "office", 28.00),
    (9, "headphones", "audio", 179.00),
    (10, "turntable", "audio", 329.00),
    (11, "tent, two persons", "outdoor", 215.40),
    (12, "sleeping bag", "outdoor", 98.60),
)

ROLES_SQL: Final = """\
create role shop login;

create database shop owner shop;

alter role shop set search_path = shop, public;
"""

_HASH: Final = "(i::bigint * 2654435761) % 4294967296"


def shop_sql() -> str:
    """Return the statements that fill the database `shop`, one per paragraph."""
    products = ",\n".join(
        f"({number}, '{name.replace(chr(39), chr(39) * 2)}', '{kind}', {price:.2f})"
        for number, name, kind, price in PRODUCTS
    )
    return f"""\
create schema shop authorization shop;

set role shop;

set search_path = shop;

create function region_of(customer bigint) returns text language sql immutable
as $$select (array['north', 'south', 'east', 'west', 'overseas'])[1 + (customer * 2654435761) % 4294967296 / 8191 % 5]$$;

create table products (id int primary key, name text not null, category text not null, price numeric(10, 2) not null);

insert into products values
{products};

create table customers (id int primary key, name text not null, email text not null, region text not null,
signed_up date not null);

insert into customers select i, 'customer ' || i, 'customer' || i || '@example.com', region_of(i),
date '2024-01-01' + (hash / 4099 % 730)::int from (select i, {_HASH} as hash from generate_series(1, {CUSTOMERS}) i) c;

create table orders (id int primary key, customer_id int not null references customers, region text not null,
product text not null, quantity int not null, amount numeric(10, 2) not null, ordered_at timestamptz not null);

insert into orders select h.i, h.customer, c.region, p.name, h.quantity, h.quantity * p.price,
timestamptz '2026-01-01 00:00:00+00' + h.i * interval '4 minutes' + h.hash % 240 * interval '1 second'
from (select i, hash, (1 + hash / 16 % {CUSTOMERS})::int as customer, (1 + hash / 65536 % {len(PRODUCTS)})::int as product,
(1 + hash / 1048576 % 4)::int as quantity from (select i, {_HASH} as hash from generate_series(1, {ORDERS}) i) s) h
join customers c on c.id = h.customer join products p on p.id = h.product order by h.i;

create index on orders (ordered_at);

analyze;
"""  # noqa: S608 - made of constants of this module
