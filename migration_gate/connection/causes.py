"""
Why a connection could not be had, and whether waiting helps. Pure.

psycopg gives no SQLSTATE for a failed connect, so the text tells, and it may be
translated: what is not recognised counts as "away", which waits. Where the SQLSTATE is
known it tells for what the text does not. Facts and texts: PostgreSQL's postinit.c and
auth.c, libpq's fe-connect.c, PgBouncer's client.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple


Kind = Literal["away", "early", "refused", "local"]


class Pace(NamedTuple):
    """
    How long to pause between attempts, in seconds.

    ``first_s`` at first, then ``per_waited`` of the time waited, at most ``longest_s``.
    """

    first_s: float
    per_waited: float
    longest_s: float

    def no_faster_than(self, pause_s: float) -> Pace:
        """Return a pace that pauses for as long at least, and longer in time."""
        if not pause_s:
            return self
        return Pace(
            max(self.first_s, pause_s),
            max(self.per_waited, CROWDED.per_waited),
            max(self.longest_s, pause_s, CROWDED.longest_s),
        )


# Nothing answers, or the server is about to: an attempt costs it nothing.
DENSE: Final = Pace(0.05, 0.01, 1.0)
# A look at a database that answers costs it a login.
ANSWERED: Final = Pace(0.25, 0.01, 1.0)
# So does each refusal a server that has no room, and other gates wait there too.
CROWDED: Final = Pace(0.5, 0.1, 2.0)
# Accounts are locked by those who try more often.
REFUSED: Final = Pace(2.0, 0.0, 2.0)
PACES: Final[Mapping[Kind, Pace]] = MappingProxyType(
    {"away": DENSE, "early": ANSWERED, "refused": REFUSED, "local": REFUSED}
)


class Cause(NamedTuple):
    """
    One kind of failure.

    ``local`` cannot come right by waiting, ``refused`` may within a grace (a role or
    secret that is being made); ``away`` is waited for, and so is ``early``: a database
    that answered, but cannot be used as it is. ``remedy`` may have ``{user}`` and
    ``{database}`` in it, for the names as SQL has them. ``own_pace`` is how often to
    try, where that is not what the kind asks for.
    """

    kind: Kind
    reason: str
    remedy: str
    pattern: str = ""
    own_pace: Pace | None = None

    @property
    def pace(self) -> Pace:
        """Return how often to try again."""
        return self.own_pace or PACES[self.kind]


UNKNOWN: Final = Cause(
    kind="away",
    reason="unknown",
    remedy="Check that PostgreSQL runs at this address and can be reached from here.",
)
HOST_UNKNOWN: Final = Cause(
    pattern=r"failed to resolve host|could not translate host name",
    kind="away",
    reason="host_unknown",
    remedy="Check the host name and the DNS of this network.",
)
CONNECTION_REFUSED: Final = Cause(
    pattern=r"Connection refused",
    kind="away",
    reason="connection_refused",
    remedy="Nothing listens there: check host and port, and that PostgreSQL runs "
    "and listens on this network.",
)
TIMEOUT: Final = Cause(
    pattern=r"timeout expired|timed out",
    kind="away",
    reason="timeout",
    remedy="Nothing answers there: check host, port, firewall and security groups.",
)
NO_ROUTE: Final = Cause(
    pattern=r"No route to host|Network is unreachable|Host is unreachable|"
    r"Cannot assign requested address",
    kind="away",
    reason="no_route",
    remedy="Check the address and the network between here and the database.",
)
NO_IPV6: Final = Cause(
    pattern=r'at ("[0-9a-f]*:[0-9a-f:.]*"|"[^"]*" \([0-9a-f]*:[0-9a-f:.]*\)), port \d+ '
    r"failed: (Network is unreachable|Cannot assign requested address)",
    kind="away",
    reason="no_ipv6",
    remedy="The host has an IPv6 address and no other, and this network has no IPv6: "
    "take an address of IPv4 (where the provider has one only for its pooler, the one "
    "in session mode), or give this network IPv6.",
)
NO_SOCKET: Final = Cause(
    pattern=r"on socket .* failed: (No such file or directory|Permission denied)",
    kind="away",
    reason="no_socket",
    remedy="There is no socket there that can be used: check the folder in host, and "
    "that PostgreSQL runs.",
)
LOGIN_REFUSED: Final = Cause(
    pattern=r"authentication failed|role \".*\" does not exist|no such user|"
    r"[Tt]enant or user not found|access token",
    kind="refused",
    reason="login_refused",
    remedy="Check user and password. PostgreSQL says the same of a role that is "
    "missing, or whose password has expired: its own log has which, and pg_roles "
    "(rolvaliduntil).",
)
NO_LOGIN: Final = Cause(
    pattern=r"role \".*\" is not permitted to log in",
    kind="refused",
    reason="no_login",
    remedy="Where it is the right role, and nobody has locked it on purpose, let an "
    "administrator run: ALTER ROLE {user} LOGIN;",
)
NO_DATABASE: Final = Cause(
    pattern=r"database \".*\" does not exist|no such database",
    kind="refused",
    reason="no_database",
    remedy="Check host and name; where it is meant to be new, create it, or let "
    "migrate do so: GATE_CREATE_DATABASE=true.",
)
NO_CONNECT_RIGHT: Final = Cause(
    pattern=r"permission denied for database",
    kind="refused",
    reason="no_connect_right",
    remedy="Let the database's owner run: GRANT CONNECT ON DATABASE {database} TO "
    "{user};",
)
DATABASE_CLOSED: Final = Cause(
    pattern=r"is not currently accepting connections",
    kind="refused",
    reason="database_closed",
    remedy="Where it is to be used again, let an administrator run: ALTER DATABASE "
    "{database} ALLOW_CONNECTIONS true;",
)
STARTING_UP: Final = Cause(
    pattern=r"starting up|not yet accepting connections|in recovery mode|"
    r"consistent recovery state",
    kind="away",
    reason="starting_up",
    remedy="PostgreSQL is starting or recovering: look at its log.",
)
SHUTTING_DOWN: Final = Cause(
    pattern=r"database system is shutting down|due to administrator command|"
    r"^server shutting down",
    kind="away",
    reason="shutting_down",
    remedy="PostgreSQL is stopping: look at its log.",
)
TOO_MANY_CONNECTIONS: Final = Cause(
    pattern=r"too many clients|remaining connection slots|too many connections|"
    r"no more connections allowed|[Mm]ax ?[Cc]lient",
    kind="away",
    reason="too_many_connections",
    remedy="All connections are taken: see who has them (as a superuser, SELECT pid, "
    "usename, application_name, state, state_change FROM pg_stat_activity), end those "
    "that nobody needs, or make the applications' pools smaller. max_connections takes "
    "effect when the server starts again; a pooler has a limit of its own.",
    own_pace=CROWDED,
)
LIMIT_OF_ROLE: Final = Cause(
    pattern=r"too many connections for role",
    kind="away",
    reason="limit_of_role",
    remedy="The role has a limit of its own, rolconnlimit in pg_roles. 0 is no room at "
    "all, perhaps on purpose: ask who set it. Else end those of its sessions in "
    "pg_stat_activity that nobody needs, or ALTER ROLE {user} CONNECTION LIMIT with a "
    "higher number; -1 is none.",
    own_pace=CROWDED,
)
LIMIT_OF_DATABASE: Final = Cause(
    pattern=r"too many connections for database",
    kind="away",
    reason="limit_of_database",
    remedy="The database has a limit of its own, datconnlimit in pg_database. 0 is no "
    "room at all, perhaps on purpose: ask who set it. Else end those of its sessions "
    "in pg_stat_activity that nobody needs, or ALTER DATABASE {database} CONNECTION "
    "LIMIT with a higher number; -1 is none.",
    own_pace=CROWDED,
)
# The server itself is away, whoever asks and for which database.
SERVER_AWAY: Final = frozenset(
    {
        *(HOST_UNKNOWN, CONNECTION_REFUSED, TIMEOUT, NO_ROUTE, NO_IPV6, NO_SOCKET),
        *(STARTING_UP, SHUTTING_DOWN),
    }
)
NO_CONNECTION_LEFT: Final = frozenset(
    {LIMIT_OF_ROLE, LIMIT_OF_DATABASE, TOO_MANY_CONNECTIONS}
)
TWO_NEEDED: Final = Cause(
    kind="away",
    reason="too_many_connections",
    remedy="The gate needs two connections, one that holds the lock and one for the "
    "files, and has got one: let what the message names have two free (ALTER ROLE or "
    "ALTER DATABASE … CONNECTION LIMIT, max_connections).",
    own_pace=CROWDED,
)
SERVER_REFUSAL: Final = Cause(
    kind="away",
    reason="server_refusal",
    remedy="The server answered, and said this itself: look for these words in its log "
    "and in its provider's documentation.",
    own_pace=CROWDED,
)
CODE_AT_LOGIN: Final = Cause(
    pattern=r"code in the database raised an error at the login",
    kind="away",
    reason="code_at_login",
    remedy="An event trigger ON login has raised it; the server's log has its words. "
    "The database may be closed on purpose: ask who made it. To mend it a superuser "
    "logs in with PGOPTIONS='-c event_triggers=off' (SELECT evtname, evtfoid::regproc "
    "FROM pg_event_trigger), and corrects the function, or runs ALTER EVENT TRIGGER … "
    "DISABLE.",
    own_pace=CROWDED,
)
DISK_FULL: Final = Cause(
    pattern=r"No space left on device",
    kind="away",
    reason="disk_full",
    remedy="The server's disk is full: make room there, or enlarge it.",
    own_pace=CROWDED,
)
STARTUP_PARAMETER: Final = Cause(
    pattern=r"unrecognized configuration parameter|unsupported startup parameter|"
    r"invalid value for parameter|invalid command-line argument|"
    r"permission denied to set parameter|cannot be (set|changed) (after|now|without)",
    kind="local",
    reason="startup_parameter",
    remedy="Take the setting out of PGOPTIONS, PGTZ, PGDATESTYLE, options= or "
    "DATABASE_URL: the server or the pooler does not take it. A pooler's sessions get "
    "it from the role: ALTER ROLE … SET search_path = …, or whatever it is.",
)
NO_ANSWER: Final = Cause(
    kind="away",
    reason="no_answer",
    remedy="The login is taken and nothing comes back: a pooler may have lost its "
    "server, or a session may lock the history table; look at their logs.",
)
POOL_FULL: Final = Cause(
    kind="away",
    reason="pool_full",
    remedy="The lock has one of the pool's connections to the server, and there is "
    "none for the files: raise the pool's size, or name the server's own address.",
    own_pace=CROWDED,
)
STANDBY: Final = Cause(
    kind="early",
    reason="hot_standby",
    remedy="Name the primary, or wait until this server is promoted.",
)
READ_ONLY: Final = Cause(
    kind="early",
    reason="read_only",
    remedy="default_transaction_read_only is on. Find out why: a full disk (free space "
    "before anything else), or a move to another server (name that one). Where nobody "
    "wants it any more, in one session: SET default_transaction_read_only = off; ALTER "
    "DATABASE {database} RESET default_transaction_read_only; "
    "or the same of the role, or in the server's configuration (source in "
    "pg_settings says where).",
)
# Of the SQLSTATE alone: which of them it is, the text says in the server's language.
LOGIN_OR_HBA: Final = Cause(
    kind="refused",
    reason="login_not_allowed",
    remedy="The role is missing or NOLOGIN, or the server's pg_hba.conf does not allow "
    "it from here, perhaps for want of TLS: check the user, set "
    "POSTGRES_SSL_MODE=require, better verify-full, or add the login there.",
)
TEMPLATE_IN_USE: Final = Cause(
    pattern=r"source database \".*\" is being accessed by other users",
    kind="early",
    reason="template_in_use",
    remedy="CREATE DATABASE copies template1, and only while nobody else is connected "
    "there: close those sessions.",
)
BEING_CREATED: Final = Cause(
    kind="early",
    reason="being_created",
    remedy="Another gate makes the database: look at its log, and at its session in "
    "pg_stat_activity.",
)
NO_RIGHT: Final = Cause(
    kind="refused",
    reason="no_right",
    remedy="GRANT the role what it lacks.",
)
STATEMENT_REFUSED: Final = Cause(
    kind="refused",
    reason="refused",
    remedy="PostgreSQL's words, and its log, say why.",
)
NOT_NOW: Final = Cause(
    kind="early",
    reason="not_now",
    remedy="Other sessions, or a limit of the role or the database, are in the way.",
)
INCOMPLETE: Final = Cause(
    kind="early",
    reason="incomplete",
    remedy="Look at the job or init container that runs migrate with these files.",
)
SECRET_FILE: Final = Cause(
    kind="refused",
    reason="secret_file",
    remedy="Check who writes the files that the _FILE settings name.",
    own_pace=ANSWERED,
)
# Their errors are made where a token is asked for, and have the words and remedies.
IDENTITY_AWAY: Final = Cause(
    kind="away", reason="identity_away", remedy="", own_pace=ANSWERED
)
IDENTITY_REFUSED: Final = Cause(kind="refused", reason="identity_refused", remedy="")
CA_FILE_MISSING: Final = Cause(
    pattern=r"root certificate file \".*\" does not exist|could not read root "
    r"certificate|locate root certificate|load system root certificate",
    kind="local",
    reason="ca_file_missing",
    remedy="Mount the file of the server's CA and name it in sslrootcert "
    "(PGSSLROOTCERT), or use sslrootcert=system for a public one.",
)
FILE_UNREADABLE: Final = Cause(
    kind="local",
    reason="file_unreadable",
    remedy="The gate does not run as root: make the file readable for its user, a key "
    "for nobody else (in Kubernetes fsGroup, and defaultMode 0440).",
)
HOME_UNREADABLE: Final = Cause(
    kind="local",
    reason="home_unreadable",
    remedy="libpq looks in .postgresql of HOME, which is another user's: set HOME to a "
    "folder of the gate's user, and PGSSLCERTMODE=disable where no client certificate "
    "is meant.",
)
CLIENT_CERTIFICATE: Final = Cause(
    pattern=r"could not (open|load|read|stat) (certificate|private)|"
    r"certificate (present, but not|does not match) private key|"
    r"private key file \".*\" (has group or world access|must be|is not)",
    kind="local",
    reason="client_certificate",
    remedy="Check sslcert and sslkey: both must be readable, the key by its owner "
    "only.",
)
NOT_ALLOWED: Final = Cause(
    pattern=r"no pg_hba\.conf entry",
    kind="refused",
    reason="not_allowed",
    remedy="The server's pg_hba.conf has no line that lets this user in from this "
    "address without TLS: set POSTGRES_SSL_MODE=verify-full (at least require), where "
    "it has a hostssl line; else let its administrator add one (hostssl {database} "
    "{user} ADDRESS scram-sha-256) and SELECT pg_reload_conf().",
)
TLS_REQUIRED: Final = Cause(
    pattern=r"SSL required|SSL connection is required|connection is insecure",
    kind="refused",
    reason="tls_required",
    remedy="The server wants TLS: set POSTGRES_SSL_MODE=require, better verify-full.",
)
WRONG_KIND: Final = Cause(
    pattern=r"hot standby mode|session is (not )?read-only",
    kind="away",
    reason="wrong_kind_of_server",
    remedy="target_session_attrs asks for another kind of server: name the primary.",
    own_pace=ANSWERED,
)
TLS_TRUST: Final = (
    "It has expired, or is not signed by the CA in sslrootcert: openssl s_client "
    "-starttls postgres shows it. Renew it on the server; or name its CA in "
    "sslrootcert (PGSSLROOTCERT), from who runs the server, not from this connection; "
    "sslrootcert=system for a public one."
)
CERTIFICATE_MISMATCH: Final = Cause(
    pattern=r"server certificate for .* does not match host name|"
    r"host name must be specified for a verified",
    kind="local",
    reason="certificate_mismatch",
    remedy="Name the host as its certificate does, or have one issued for this name; "
    "where the certificate's name does not lead to this server, give the address in "
    "PGHOSTADDR beside it.",
)
# The first whose pattern is found counts; a text of libpq's can hold two failures, of
# the attempt with TLS and of the one without.
CAUSES: Final = (
    CA_FILE_MISSING,
    Cause(
        pattern=r"certificate verify failed",
        kind="local",
        reason="certificate_untrusted",
        remedy=TLS_TRUST,
    ),
    CERTIFICATE_MISMATCH,
    Cause(
        pattern=r"no password supplied",
        kind="local",
        reason="no_password",
        remedy="The server asks for a password: give it in POSTGRES_PASSWORD, "
        "PGPASSWORD or their _FILE. A password file (PGPASSFILE) is passed over where "
        "group or others may read it.",
    ),
    Cause(
        pattern=r"local user with ID \d+ does not exist|could not look up local user",
        kind="local",
        reason="no_user",
        remedy="No user is named: set PGUSER.",
    ),
    CLIENT_CERTIFICATE,
    Cause(
        pattern=r"invalid (\S+ )?value:? \"|invalid connection option|"
        r"invalid integer value|definition of service .* not found|"
        r"service file \"|weak sslmode|is too long \(maximum|"
        r"GSSAPI encryption required|label (empty or )?too long|invalid SCRAM|"
        r"invalid SSL protocol version range|\"min_protocol_version\" was set|"
        r"could not parse network address|require_auth method|requirepeer",
        kind="local",
        reason="parameter",
        remedy="Correct this connection parameter.",
    ),
    STARTUP_PARAMETER,
    Cause(
        pattern=r"received invalid response to|expected authentication request|"
        r"wrong version number|received unencrypted data after",
        kind="refused",
        reason="not_postgresql",
        remedy="Something other than PostgreSQL listens there: check host and port.",
    ),
    Cause(
        pattern=r"server does not support SSL",
        kind="refused",
        reason="tls_not_offered",
        remedy="What listens there offers no TLS: check host and port, and turn TLS on "
        "there (ssl = on; a pooler has its own setting).",
    ),
    Cause(
        pattern=r"alert (unknown ca|bad certificate|certificate)|"
        r"connection requires a valid client certificate",
        kind="refused",
        reason="client_certificate_refused",
        remedy="The server wants a client certificate that it trusts: give one in "
        "sslcert and sslkey.",
    ),
    Cause(
        pattern=r"protocol version|unsupported protocol|no protocols available|"
        r"handshake failure|without ALPN|no application protocol",
        kind="refused",
        reason="tls_version",
        remedy="Server and gate have no TLS version in common: check "
        "ssl_min_protocol_version, sslnegotiation and the server's TLS settings.",
    ),
    Cause(
        pattern=r"no pg_hba\.conf entry.*SSL encryption|pg_hba\.conf rejects",
        kind="refused",
        reason="not_allowed",
        remedy="The server's pg_hba.conf or firewall rule allows this address, user "
        "and database no login: add it there.",
    ),
    TLS_REQUIRED,
    NOT_ALLOWED,
    Cause(
        pattern=r"channel binding|authentication method|SASL authentication mechanisms|"
        r"OAuth authentication|did not request an SSL certificate",
        kind="refused",
        reason="authentication_method",
        remedy="Server and gate have no way to log in in common: check require_auth, "
        "channel_binding, sslcertmode and the server's pg_hba.conf.",
    ),
    NO_LOGIN,
    LOGIN_REFUSED,
    NO_DATABASE,
    NO_CONNECT_RIGHT,
    DATABASE_CLOSED,
    Cause(
        pattern=r"invalid database \".*\"",
        kind="refused",
        reason="database_invalid",
        remedy="A DROP DATABASE was cut short, and it cannot be used any more: drop "
        "it, and create or restore it.",
    ),
    Cause(
        pattern=r"database \".*\" is disabled",
        kind="refused",
        reason="database_disabled",
        remedy="The pooler has it disabled: in PgBouncer's console, ENABLE {database};",
    ),
    TEMPLATE_IN_USE,
    CODE_AT_LOGIN,
    DISK_FULL,
    HOST_UNKNOWN,
    CONNECTION_REFUSED,
    STARTING_UP,
    Cause(
        pattern=r"query_wait_timeout|server_login_retry|client_login_timeout|"
        r"pooler is|server login has been failing|bouncer config error|"
        r"server conn crashed",
        kind="away",
        reason="pooler",
        remedy="The pooler cannot reach PostgreSQL: look at its log, or name the "
        "server's own address.",
        own_pace=ANSWERED,
    ),
    SHUTTING_DOWN,
    Cause(
        pattern=r"not accepting connections",
        kind="away",
        reason="standby_closed",
        remedy="The server is a standby that takes no connections: name the primary.",
    ),
    LIMIT_OF_ROLE,
    LIMIT_OF_DATABASE,
    TOO_MANY_CONNECTIONS,
    TIMEOUT,
    NO_IPV6,
    NO_ROUTE,
    NO_SOCKET,
    Cause(
        pattern=r"closed the connection unexpectedly|Connection reset|EOF detected|"
        r"unexpected eof|Broken pipe|connection is lost|terminating connection",
        kind="away",
        reason="closed_early",
        remedy="The connection was closed before the database could be used: check "
        "what stands between (proxy, mesh, load balancer) and the server's log.",
    ),
    WRONG_KIND,
)
BY_SQLSTATE: Final[Mapping[str, Cause]] = MappingProxyType(
    {
        "28P01": LOGIN_REFUSED,
        "28000": LOGIN_OR_HBA,
        "3D000": NO_DATABASE,
        "42501": NO_CONNECT_RIGHT,
        "55000": DATABASE_CLOSED,
        "55006": TEMPLATE_IN_USE,
        "42704": STARTUP_PARAMETER,
        "22023": STARTUP_PARAMETER,
        "53300": TOO_MANY_CONNECTIONS,
        "57P01": SHUTTING_DOWN,
        "57P02": SHUTTING_DOWN,
        "57P03": STARTING_UP,
    }
)
