"""What clients of stores say when data cannot be reached, and what to tell a user then. Pure, no imports."""

from __future__ import annotations

NO_CLIENT = r"\b[Ii]nstall '?[\w-]+'? to (access|use)|ModuleNotFoundError: No module named"
NO_LIBHDFS = r"Unable to load lib(hdfs|jvm)|HDFS connection failed"
NO_NAMENODE = r"No NameNode hosts found|NameNode does not answer"
NO_BUCKET = r"NoSuchBucket|\bbucket( \S+)? does not exist"
NOT_LET_IN = (
    r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|Access ?Key ?Id you provided|"
    r"provided access key|signature we calculated|NoCredentialsError|[Uu]nable to locate credentials|"
    r"PartialCredentialsError|TokenRetrievalError|CredentialRetrievalError|RefreshError|\bAccessDenied\b|"
    r"PermissionError: (Forbidden|Access ?Denied)|HttpError: .*\b40[13]\b|does not have \S+ access"
)
NO_ANSWER = (
    r"Connection refused|EndpointConnectionError|[Cc]ould not connect to the endpoint|ConnectTimeoutError|"
    r"ReadTimeoutError|Connect timeout|Read timeout|ClientConnector\w*Error|ServerDisconnectedError|"
    r"failed to lookup address|Name or service not known|Temporary failure in name resolution|No route to host|"
    r"Network is unreachable|ConnectionError|timed out"
)

CLIENT = (
    "The job's environment has no package for this kind of address: s3:// takes s3fs, gs:// gcsfs, abfs:// adlfs, "
    "hdfs:// hdfs-native. Write it into jobs/requirements.txt (or the job's own), then `mayfly env build`; where the "
    "target names a `python`, install it there."
)
LIBHDFS = (
    "hdfs:// was opened by Arrow, which needs Hadoop's libhdfs.so, its class path and a Java on each node, and one of "
    "them is missing or the address is of nobody. Simplest: write hdfs-native into jobs/requirements.txt and "
    "`mayfly env build`: it opens hdfs:// without any of them."
)
KEYS = (
    "The store answered and refused: no keys, wrong ones, or keys that may not do this. gs:// asks as the nodes' "
    "service account. s3:// takes its keys from the file that AWS_CONFIG_FILE under `env` in job.yaml names: it must "
    "be on all nodes and open to both users. The keys themselves have no place in `env` (docs/jobs.md)."
)
ANSWER = (
    "Nobody answered at this address from there. See whether the store runs, whether name and port are right (s3:// on "
    "a server of your own: its endpoint; hdfs://: the NameNode's RPC port, often 8020), and whether a firewall lets "
    "the cluster's nodes through."
)
BUCKET = (
    "There is no such bucket, or not at this endpoint. Check the name after `://`; for an S3 server of your own also "
    "its endpoint, else Amazon is asked (docs/jobs.md). Mayfly makes no buckets."
)
IN_THE_SCRIPT: tuple[tuple[str, str], ...] = (
    (NO_LIBHDFS, LIBHDFS),
    (r"\b[Ii]nstall '?[\w-]+'? to (access|use)", CLIENT),
    (NO_BUCKET, BUCKET),
    (NOT_LET_IN, KEYS),
    (r"EndpointConnectionError|Could not connect to the endpoint", ANSWER),
)
"""(what an exception of the script says, advice)."""
