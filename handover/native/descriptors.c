/*
 * Descriptors over unix sockets, ptys, ttys, timers and a poll watcher, for handover/native.ts.
 *
 * Invariants: every descriptor made here is close-on-exec and nonblocking; no call blocks; a call that would
 * block returns AGAIN (-1), any other failure throws an Error with `code`, `errno` and `syscall`; a descriptor
 * that cannot be handed to JavaScript is closed. Only what Node itself cannot do is here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <math.h>
#include <netinet/in.h>
#include <node_api.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include <uv.h>

#define AGAIN (-1)
#define DESCRIPTORS_MAX 250 /* LIMITS.descriptorsPerLineMax; the kernel's SCM_MAX_FD is 253 */
#define KERNEL_DESCRIPTORS_MAX 253
#define BACKLOG_MAX 4096
#define POSITION_TRIES_MAX 100
#define ARGUMENTS_MAX 6

/* ---- errors and arguments ------------------------------------------------------------------------------- */

static void throw_code(napi_env env, const char *code, const char *syscall_name, int number, const char *text) {
  napi_value message, code_value, error, value;
  if (napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) != napi_ok) return;
  if (napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value) != napi_ok) return;
  if (napi_create_error(env, code_value, message, &error) != napi_ok) return;
  if (syscall_name != NULL && napi_create_string_utf8(env, syscall_name, NAPI_AUTO_LENGTH, &value) == napi_ok)
    napi_set_named_property(env, error, "syscall", value);
  if (number != 0 && napi_create_int32(env, -number, &value) == napi_ok)
    napi_set_named_property(env, error, "errno", value);
  napi_throw(env, error);
}

/* `number` is errno, taken by the caller before anything may change it. */
static napi_value fail(napi_env env, const char *syscall_name, int number) {
  char name[64], reason[128], text[256];
  uv_err_name_r(-number, name, sizeof name);
  uv_strerror_r(-number, reason, sizeof reason);
  snprintf(text, sizeof text, "%s: %s, %s", name, reason, syscall_name);
  throw_code(env, name, syscall_name, number, text);
  return NULL;
}

static napi_value fail_argument(napi_env env, const char *what) {
  char text[160];
  snprintf(text, sizeof text, "%s", what);
  napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", text);
  return NULL;
}

struct call {
  napi_env env;
  napi_value at[ARGUMENTS_MAX];
};

static bool take(napi_env env, napi_callback_info info, size_t count, struct call *call) {
  size_t given = ARGUMENTS_MAX;
  call->env = env;
  if (napi_get_cb_info(env, info, &given, call->at, NULL, NULL) != napi_ok || given < count) {
    fail_argument(env, "too few arguments");
    return false;
  }
  return true;
}

static bool take_number(struct call *call, size_t at, double low, double high, const char *what, double *out) {
  napi_valuetype type;
  double value;
  if (napi_typeof(call->env, call->at[at], &type) != napi_ok || type != napi_number ||
      napi_get_value_double(call->env, call->at[at], &value) != napi_ok || !(value >= low && value <= high) ||
      value != floor(value)) {
    char text[160];
    snprintf(text, sizeof text, "%s must be an integer from %.0f to %.0f", what, low, high);
    fail_argument(call->env, text);
    return false;
  }
  *out = value;
  return true;
}

static bool take_int(struct call *call, size_t at, int low, int high, const char *what, int *out) {
  double value;
  if (!take_number(call, at, low, high, what, &value)) return false;
  *out = (int)value;
  return true;
}

static bool take_fd(struct call *call, size_t at, int *out) {
  return take_int(call, at, 0, INT_MAX, "a descriptor", out);
}

/* Text without a NUL inside, of at most `size - 1` bytes. */
static bool take_text(struct call *call, size_t at, char *out, size_t size, const char *what) {
  size_t bytes = 0, copied = 0;
  if (napi_get_value_string_utf8(call->env, call->at[at], NULL, 0, &bytes) != napi_ok || bytes == 0 || bytes >= size ||
      napi_get_value_string_utf8(call->env, call->at[at], out, size, &copied) != napi_ok || strlen(out) != bytes) {
    char text[160];
    snprintf(text, sizeof text, "%s must be a text of 1 to %zu bytes without NUL", what, size - 1);
    fail_argument(call->env, text);
    return false;
  }
  return true;
}

/* (bytes, offset, length) from argument `at` on: any Uint8Array, a range within it, not empty. */
static bool take_range(struct call *call, size_t at, char **start, size_t *length) {
  napi_typedarray_type type;
  size_t bytes = 0;
  void *data = NULL;
  bool is = false;
  double offset, count;
  if (napi_is_typedarray(call->env, call->at[at], &is) != napi_ok || !is ||
      napi_get_typedarray_info(call->env, call->at[at], &type, &bytes, &data, NULL, NULL) != napi_ok ||
      type != napi_uint8_array) {
    fail_argument(call->env, "bytes must be a Uint8Array");
    return false;
  }
  if (!take_number(call, at + 1, 0, (double)bytes, "the offset", &offset)) return false;
  if (!take_number(call, at + 2, 1, (double)bytes - offset, "the length", &count)) return false;
  *start = (char *)data + (size_t)offset;
  *length = (size_t)count;
  return true;
}

static napi_value number(napi_env env, double value) {
  napi_value result = NULL;
  napi_create_double(env, value, &result);
  return result;
}

static napi_value nothing(napi_env env) {
  napi_value result = NULL;
  napi_get_undefined(env, &result);
  return result;
}

static bool would_block(int number_) { return number_ == EAGAIN || number_ == EWOULDBLOCK; }

/* Bytes moved, AGAIN, or an error. */
static napi_value moved(napi_env env, const char *name, ssize_t result, int number_) {
  if (result >= 0) return number(env, (double)result);
  if (would_block(number_)) return number(env, AGAIN);
  return fail(env, name, number_);
}

/* ---- sockets -------------------------------------------------------------------------------------------- */

union control {
  char bytes[CMSG_SPACE(KERNEL_DESCRIPTORS_MAX * sizeof(int))];
  struct cmsghdr align;
};

/* send(fd, bytes, offset, length, descriptors) -> bytes sent | AGAIN. The descriptors go with the first byte. */
static napi_value Send(napi_env env, napi_callback_info info) {
  struct call call;
  struct iovec vector;
  struct msghdr message = {0};
  union control control;
  uint32_t count = 0;
  bool is_array = false;
  ssize_t result;
  int fd, number_;
  char *start;
  size_t length;
  if (!take(env, info, 5, &call) || !take_fd(&call, 0, &fd) || !take_range(&call, 1, &start, &length)) return NULL;
  if (napi_is_array(env, call.at[4], &is_array) != napi_ok || !is_array ||
      napi_get_array_length(env, call.at[4], &count) != napi_ok || count > DESCRIPTORS_MAX)
    return fail_argument(env, "descriptors must be an array of at most 250");
  vector.iov_base = start;
  vector.iov_len = length;
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (count > 0) {
    struct cmsghdr *header;
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (uint32_t i = 0; i < count; i++) {
      int passed;
      if (napi_get_element(env, call.at[4], i, &call.at[5]) != napi_ok) return NULL;
      if (!take_fd(&call, 5, &passed)) return NULL;
      memcpy(CMSG_DATA(header) + i * sizeof(int), &passed, sizeof passed);
    }
  }
  do result = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (result < 0 && errno == EINTR);
  number_ = errno;
  return moved(env, "sendmsg", result, number_);
}

/*
 * receive(fd, bytes, offset, length, into) -> bytes read (0: end) | AGAIN; descriptors are pushed onto `into`.
 * Throws MSG_CTRUNC when control data was cut; all that came with it is then closed.
 */
static napi_value Receive(napi_env env, napi_callback_info info) {
  struct call call;
  struct iovec vector;
  struct msghdr message = {0};
  union control control;
  int descriptors[KERNEL_DESCRIPTORS_MAX];
  uint32_t count = 0, given = 0, length_before = 0;
  bool is_array = false;
  ssize_t result;
  int fd, number_;
  char *start;
  size_t length;
  if (!take(env, info, 5, &call) || !take_fd(&call, 0, &fd) || !take_range(&call, 1, &start, &length)) return NULL;
  if (napi_is_array(env, call.at[4], &is_array) != napi_ok || !is_array ||
      napi_get_array_length(env, call.at[4], &length_before) != napi_ok)
    return fail_argument(env, "into must be an array");
  vector.iov_base = start;
  vector.iov_len = length;
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  do result = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (result < 0 && errno == EINTR);
  number_ = errno;
  if (result < 0) return moved(env, "recvmsg", result, number_);
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
    size_t bytes;
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    bytes = header->cmsg_len - CMSG_LEN(0);
    for (size_t i = 0; i + sizeof(int) <= bytes && count < KERNEL_DESCRIPTORS_MAX; i += sizeof(int))
      memcpy(&descriptors[count++], CMSG_DATA(header) + i, sizeof(int));
  }
  if (message.msg_flags & MSG_CTRUNC) {
    for (uint32_t i = 0; i < count; i++) close(descriptors[i]);
    throw_code(env, "MSG_CTRUNC", "recvmsg", 0, "MSG_CTRUNC: control data was cut, the descriptors are lost, recvmsg");
    return NULL;
  }
  for (; given < count; given++) {
    napi_value value = number(env, descriptors[given]);
    if (value == NULL || napi_set_element(env, call.at[4], length_before + given, value) != napi_ok) break;
  }
  if (given < count) { /* JavaScript cannot take it: what was given is its own to close, the rest is ours */
    for (; given < count; given++) close(descriptors[given]);
    return NULL;
  }
  return number(env, (double)result);
}

static bool unix_address(struct call *call, size_t at, struct sockaddr_un *address) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  return take_text(call, at, address->sun_path, sizeof address->sun_path, "the socket's path");
}

/* unixListen(path, backlog) -> fd */
static napi_value UnixListen(napi_env env, napi_callback_info info) {
  struct call call;
  struct sockaddr_un address;
  int backlog, fd;
  if (!take(env, info, 2, &call) || !unix_address(&call, 0, &address) ||
      !take_int(&call, 1, 1, BACKLOG_MAX, "the backlog", &backlog))
    return NULL;
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fail(env, "socket", errno);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    int number_ = errno;
    close(fd);
    return fail(env, "bind", number_);
  }
  if (listen(fd, backlog) < 0) {
    int number_ = errno;
    close(fd);
    return fail(env, "listen", number_);
  }
  return number(env, fd);
}

/* unixConnect(path) -> fd | AGAIN (the listener's backlog is full) */
static napi_value UnixConnect(napi_env env, napi_callback_info info) {
  struct call call;
  struct sockaddr_un address;
  int fd, result, number_;
  if (!take(env, info, 1, &call) || !unix_address(&call, 0, &address)) return NULL;
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fail(env, "socket", errno);
  do result = connect(fd, (struct sockaddr *)&address, sizeof address);
  while (result < 0 && errno == EINTR);
  if (result == 0) return number(env, fd);
  number_ = errno;
  close(fd);
  return moved(env, "connect", -1, number_);
}

/* accept(fd) -> fd | AGAIN. A connection that died in the backlog counts as none. */
static napi_value Accept(napi_env env, napi_callback_info info) {
  struct call call;
  int fd, result, number_;
  if (!take(env, info, 1, &call) || !take_fd(&call, 0, &fd)) return NULL;
  do result = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  while (result < 0 && errno == EINTR);
  number_ = errno;
  if (result < 0 && number_ == ECONNABORTED) number_ = EAGAIN;
  return moved(env, "accept4", result, number_);
}

/* tcpListen(address, port, backlog) -> fd. A numeric IPv4 or IPv6 address; port 0: the kernel's choice. */
static napi_value TcpListen(napi_env env, napi_callback_info info) {
  struct call call;
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  struct sockaddr *address;
  socklen_t size;
  char text[INET6_ADDRSTRLEN];
  int port, backlog, fd, on = 1, number_;
  if (!take(env, info, 3, &call) || !take_text(&call, 0, text, sizeof text, "the address") ||
      !take_int(&call, 1, 0, 65535, "the port", &port) || !take_int(&call, 2, 1, BACKLOG_MAX, "the backlog", &backlog))
    return NULL;
  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
    v4.sin_port = htons((uint16_t)port);
    address = (struct sockaddr *)&v4;
    size = sizeof v4;
  } else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1) {
    v6.sin6_port = htons((uint16_t)port);
    address = (struct sockaddr *)&v6;
    size = sizeof v6;
  } else {
    return fail_argument(env, "the address must be a numeric IP address");
  }
  fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fail(env, "socket", errno);
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 || bind(fd, address, size) < 0) {
    number_ = errno;
    close(fd);
    return fail(env, "bind", number_);
  }
  if (listen(fd, backlog) < 0) {
    number_ = errno;
    close(fd);
    return fail(env, "listen", number_);
  }
  return number(env, fd);
}

/* tcpPort(fd) -> the local port */
static napi_value TcpPort(napi_env env, napi_callback_info info) {
  struct call call;
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  int fd;
  if (!take(env, info, 1, &call) || !take_fd(&call, 0, &fd)) return NULL;
  if (getsockname(fd, (struct sockaddr *)&address, &size) < 0) return fail(env, "getsockname", errno);
  if (address.ss_family == AF_INET) return number(env, ntohs(((struct sockaddr_in *)&address)->sin_port));
  if (address.ss_family == AF_INET6) return number(env, ntohs(((struct sockaddr_in6 *)&address)->sin6_port));
  return fail(env, "getsockname", EAFNOSUPPORT);
}

/*
 * tcpPosition(fd) -> [read, written], in bytes since the connection began: what was taken out of the kernel, and what
 * was given to it. [-1, -1]: no TCP socket. Counted by the kernel, whoever read and wrote.
 */
struct counts {
  unsigned char before[120]; /* struct tcp_info of the kernel's linux/tcp.h, which libuv's headers do not let in beside theirs */
  uint64_t acked, received;
};

static napi_value TcpPosition(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  double position[2] = {-1, -1};
  napi_value result, value;
  if (!take(env, info, 1, &call) || !take_fd(&call, 0, &fd)) return NULL;
  /* An acknowledgement or a segment may come between two questions: asked until none did. */
  for (int i = 0; i < POSITION_TRIES_MAX; i++) {
    struct counts before = {0}, after = {0};
    socklen_t size = sizeof before;
    int unread = 0, unsent = 0;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &before, &size) < 0) {
      if (errno == EOPNOTSUPP || errno == ENOPROTOOPT) break;
      return fail(env, "getsockopt", errno);
    }
    if (ioctl(fd, SIOCINQ, &unread) < 0 || ioctl(fd, SIOCOUTQ, &unsent) < 0) return fail(env, "ioctl", errno);
    size = sizeof after;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &after, &size) < 0) return fail(env, "getsockopt", errno);
    position[0] = (double)after.received - unread;
    position[1] = (double)after.acked + unsent;
    if (before.received == after.received && before.acked == after.acked) break;
  }
  if (napi_create_array_with_length(env, 2, &result) != napi_ok) return NULL;
  for (uint32_t i = 0; i < 2; i++)
    if (napi_create_double(env, position[i], &value) != napi_ok || napi_set_element(env, result, i, value) != napi_ok)
      return NULL;
  return result;
}

static napi_value pair(napi_env env, int first, int second) {
  napi_value result;
  if (napi_create_array_with_length(env, 2, &result) == napi_ok &&
      napi_set_element(env, result, 0, number(env, first)) == napi_ok &&
      napi_set_element(env, result, 1, number(env, second)) == napi_ok)
    return result;
  close(first);
  close(second);
  return NULL;
}

/* socketPair() -> [fd, fd] */
static napi_value SocketPair(napi_env env, napi_callback_info info) {
  int ends[2];
  (void)info;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) return fail(env, "socketpair", errno);
  return pair(env, ends[0], ends[1]);
}

/* peer(fd) -> [pid, uid, gid] of who connected or listened (SO_PEERCRED); a pid of 0 is outside this namespace */
static napi_value Peer(napi_env env, napi_callback_info info) {
  struct call call;
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  napi_value result;
  int fd;
  if (!take(env, info, 1, &call) || !take_fd(&call, 0, &fd)) return NULL;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) return fail(env, "getsockopt", errno);
  if (napi_create_array_with_length(env, 3, &result) != napi_ok) return NULL;
  napi_set_element(env, result, 0, number(env, credentials.pid));
  napi_set_element(env, result, 1, number(env, credentials.uid));
  napi_set_element(env, result, 2, number(env, credentials.gid));
  return result;
}

/* ---- any descriptor ------------------------------------------------------------------------------------- */

/* read or write: (fd, bytes, offset, length) */
static napi_value transfer(napi_env env, napi_callback_info info, int writes) {
  struct call call;
  ssize_t result;
  char *start;
  size_t length;
  int fd, number_;
  if (!take(env, info, 4, &call) || !take_fd(&call, 0, &fd) || !take_range(&call, 1, &start, &length)) return NULL;
  do result = writes ? write(fd, start, length) : read(fd, start, length);
  while (result < 0 && errno == EINTR);
  number_ = errno;
  return moved(env, writes ? "write" : "read", result, number_);
}

static napi_value Read(napi_env env, napi_callback_info info) { return transfer(env, info, 0); }
static napi_value Write(napi_env env, napi_callback_info info) { return transfer(env, info, 1); }

static napi_value Close(napi_env env, napi_callback_info info) {
  struct call call;
  int fd;
  if (!take(env, info, 1, &call) || !take_fd(&call, 0, &fd)) return NULL;
  /* Linux frees the number even when close(2) says EINTR: never again. */
  if (close(fd) < 0 && errno != EINTR) return fail(env, "close", errno);
  return nothing(env);
}

static napi_value Duplicate(napi_env env, napi_callback_info info) {
  struct call call;
  int fd, result;
  if (!take(env, info, 1, &call) || !take_fd(&call, 0, &fd)) return NULL;
  result = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (result < 0) return fail(env, "fcntl", errno);
  return number(env, result);
}

/* ---- ttys ----------------------------------------------------------------------------------------------- */

static bool speed_of(int baud, speed_t *out) {
  static const struct {
    int baud;
    speed_t speed;
  } known[] = {{9600, B9600},       {19200, B19200},     {38400, B38400},     {57600, B57600},
               {115200, B115200},   {230400, B230400},   {460800, B460800},   {500000, B500000},
               {921600, B921600},   {1000000, B1000000}, {1500000, B1500000}, {2000000, B2000000},
               {3000000, B3000000}, {4000000, B4000000}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (known[i].baud == baud) {
      *out = known[i].speed;
      return true;
    }
  return false;
}

/* Raw, 8N1, no flow control, and no hangup when one of several holders closes its descriptor. */
static bool make_raw(int fd, speed_t speed) {
  struct termios mode;
  if (tcgetattr(fd, &mode) < 0) return false;
  cfmakeraw(&mode);
  mode.c_cflag |= CLOCAL | CREAD;
  mode.c_cflag &= ~(HUPCL | CRTSCTS | CSTOPB);
  mode.c_cc[VMIN] = 1;
  mode.c_cc[VTIME] = 0;
  if (speed != B0 && (cfsetispeed(&mode, speed) < 0 || cfsetospeed(&mode, speed) < 0)) return false;
  return tcsetattr(fd, TCSANOW, &mode) == 0;
}

/* openTty(path, baud) -> fd */
static napi_value OpenTty(napi_env env, napi_callback_info info) {
  struct call call;
  char path[PATH_MAX];
  speed_t speed;
  int baud, fd, number_;
  if (!take(env, info, 2, &call) || !take_text(&call, 0, path, sizeof path, "the tty's path") ||
      !take_int(&call, 1, 1, INT_MAX, "the speed", &baud))
    return NULL;
  if (!speed_of(baud, &speed)) return fail_argument(env, "the speed is not a standard one");
  do fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail(env, "open", errno);
  if (!make_raw(fd, speed)) {
    number_ = errno;
    close(fd);
    return fail(env, "tcsetattr", number_);
  }
  return number(env, fd);
}

/* openPty() -> [master, slave, path] */
static napi_value OpenPty(napi_env env, napi_callback_info info) {
  char path[PATH_MAX];
  napi_value result, text;
  int master, slave, number_;
  (void)info;
  master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (master < 0) return fail(env, "posix_openpt", errno);
  if (grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, path, sizeof path) != 0) {
    number_ = errno;
    close(master);
    return fail(env, "ptsname_r", number_);
  }
  slave = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (slave < 0 || !make_raw(slave, B0)) {
    number_ = errno;
    if (slave >= 0) close(slave);
    close(master);
    return fail(env, "open", number_);
  }
  result = pair(env, master, slave);
  if (result == NULL) return NULL;
  if (napi_create_string_utf8(env, path, NAPI_AUTO_LENGTH, &text) != napi_ok ||
      napi_set_element(env, result, 2, text) != napi_ok) {
    close(master);
    close(slave);
    return NULL;
  }
  return result;
}

/* ttyIsRaw(fd) -> neither echo, nor lines, nor signals, nor output processing */
static napi_value TtyIsRaw(napi_env env, napi_callback_info info) {
  struct call call;
  struct termios mode;
  napi_value result;
  int fd;
  if (!take(env, info, 1, &call) || !take_fd(&call, 0, &fd)) return NULL;
  if (tcgetattr(fd, &mode) < 0) return fail(env, "tcgetattr", errno);
  if (napi_get_boolean(env, (mode.c_lflag & (ECHO | ICANON | ISIG | IEXTEN)) == 0 && (mode.c_oflag & OPOST) == 0, &result) !=
      napi_ok)
    return NULL;
  return result;
}

/* ---- time and priority ---------------------------------------------------------------------------------- */

/* timerCreate() -> fd on CLOCK_MONOTONIC */
static napi_value TimerCreate(napi_env env, napi_callback_info info) {
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  (void)info;
  if (fd < 0) return fail(env, "timerfd_create", errno);
  return number(env, fd);
}

static struct timespec of_us(double us) {
  uint64_t whole = (uint64_t)us;
  struct timespec time = {.tv_sec = (time_t)(whole / 1000000), .tv_nsec = (long)(whole % 1000000) * 1000};
  return time;
}

/* timerSet(fd, atUs, intervalUs): absolute first expiry (0 disarms), then every interval (0: once) */
static napi_value TimerSet(napi_env env, napi_callback_info info) {
  struct call call;
  struct itimerspec time;
  double at, interval;
  int fd;
  if (!take(env, info, 3, &call) || !take_fd(&call, 0, &fd) ||
      !take_number(&call, 1, 0, 9007199254740991.0, "the time in us", &at) ||
      !take_number(&call, 2, 0, 3600e6, "the interval in us", &interval))
    return NULL;
  time.it_value = of_us(at);
  time.it_interval = of_us(interval);
  if (timerfd_settime(fd, TFD_TIMER_ABSTIME, &time, NULL) < 0) return fail(env, "timerfd_settime", errno);
  return nothing(env);
}

/* timerRead(fd) -> expiries since the last read, 0 if none */
static napi_value TimerRead(napi_env env, napi_callback_info info) {
  struct call call;
  uint64_t expiries = 0;
  ssize_t result;
  int fd;
  if (!take(env, info, 1, &call) || !take_fd(&call, 0, &fd)) return NULL;
  do result = read(fd, &expiries, sizeof expiries);
  while (result < 0 && errno == EINTR);
  if (result < 0 && !would_block(errno)) return fail(env, "read", errno);
  return number(env, result == (ssize_t)sizeof expiries ? (double)expiries : 0);
}

/* setFifo(pid, priority): SCHED_FIFO for that thread (0: this one), never inherited; priority 0: back to normal */
static napi_value SetFifo(napi_env env, napi_callback_info info) {
  struct call call;
  struct sched_param parameter = {0};
  int pid, priority;
  if (!take(env, info, 2, &call) || !take_int(&call, 0, 0, INT_MAX, "the process", &pid) ||
      !take_int(&call, 1, 0, 99, "the priority", &priority))
    return NULL;
  parameter.sched_priority = priority;
  if (sched_setscheduler(pid, (priority > 0 ? SCHED_FIFO : SCHED_OTHER) | SCHED_RESET_ON_FORK, &parameter) < 0)
    return fail(env, "sched_setscheduler", errno);
  return nothing(env);
}

/* ---- processes ------------------------------------------------------------------------------------------ */

/* Numbers of our own: older headers lack them, and they are the same on every architecture. */
enum { PIDFD_SEND_SIGNAL = 424, PIDFD_OPEN = 434 };

/* pidfdOpen(pid): close-on-exec; readable once the process, with all its threads, has ended */
static napi_value PidfdOpen(napi_env env, napi_callback_info info) {
  struct call call;
  int pid;
  long fd;
  if (!take(env, info, 1, &call) || !take_int(&call, 0, 1, INT_MAX, "the process", &pid)) return NULL;
  fd = syscall(PIDFD_OPEN, pid, 0);
  return fd < 0 ? fail(env, "pidfd_open", errno) : number(env, (double)fd);
}

/* pidfdSignal(fd, signal): to that very process, whatever became of its number */
static napi_value PidfdSignal(napi_env env, napi_callback_info info) {
  struct call call;
  int fd, signal_;
  if (!take(env, info, 2, &call) || !take_fd(&call, 0, &fd) ||
      !take_int(&call, 1, 0, SIGRTMAX, "the signal", &signal_))
    return NULL;
  if (syscall(PIDFD_SEND_SIGNAL, fd, signal_, NULL, 0) < 0) return fail(env, "pidfd_send_signal", errno);
  return nothing(env);
}

/* ---- poll watcher --------------------------------------------------------------------------------------- */

/* JavaScript knows a watcher by a number that is never used twice, so a late call finds nothing, not freed memory. */
struct watcher {
  uv_poll_t poll;
  struct watchers *all;
  struct watcher *next;
  uint32_t id;
  napi_ref callback;
  napi_async_context context;
};

/* One per environment (main thread, worker). */
struct watchers {
  napi_env env;
  struct watcher *first;
  uint32_t last_id;
  uint32_t closing;
  napi_async_cleanup_hook_handle cleanup;
  bool ended;
};

static void finish(struct watchers *all) {
  if (!all->ended || all->closing > 0) return;
  napi_remove_async_cleanup_hook(all->cleanup);
  free(all);
}

static void on_closed(uv_handle_t *handle) {
  struct watcher *watcher = handle->data;
  struct watchers *all = watcher->all;
  free(watcher);
  all->closing--;
  finish(all);
}

static void unlink_and_close(struct watcher *watcher) {
  struct watchers *all = watcher->all;
  struct watcher **link = &all->first;
  while (*link != watcher) link = &(*link)->next;
  *link = watcher->next;
  uv_poll_stop(&watcher->poll);
  napi_delete_reference(all->env, watcher->callback);
  napi_async_destroy(all->env, watcher->context);
  all->closing++;
  uv_close((uv_handle_t *)&watcher->poll, on_closed);
}

static void on_environment_end(napi_async_cleanup_hook_handle handle, void *data) {
  struct watchers *all = data;
  (void)handle;
  while (all->first != NULL) unlink_and_close(all->first);
  all->ended = true;
  finish(all);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  struct watcher *watcher = poll->data;
  napi_env env = watcher->all->env;
  napi_handle_scope scope;
  napi_value callback, receiver, arguments[2], ignored, exception;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  if (napi_get_reference_value(env, watcher->callback, &callback) == napi_ok &&
      napi_get_global(env, &receiver) == napi_ok) {
    arguments[0] = number(env, events);
    arguments[1] = number(env, status);
    /* The callback may close the watcher: it is not touched after this call. */
    if (napi_make_callback(env, watcher->context, receiver, callback, 2, arguments, &ignored) == napi_pending_exception &&
        napi_get_and_clear_last_exception(env, &exception) == napi_ok)
      napi_fatal_exception(env, exception);
  }
  napi_close_handle_scope(env, scope);
}

static struct watcher *find(napi_env env, struct call *call) {
  struct watchers *all = NULL;
  double id;
  if (napi_get_instance_data(env, (void **)&all) != napi_ok || !take_number(call, 0, 1, UINT32_MAX, "a watcher", &id))
    return NULL;
  for (struct watcher *at = all->first; at != NULL; at = at->next)
    if (at->id == (uint32_t)id) return at;
  fail(env, "uv_poll_start", EBADF);
  return NULL;
}

/* watch(fd, events, callback(events, status)) -> watcher */
static napi_value Watch(napi_env env, napi_callback_info info) {
  struct call call;
  struct watchers *all = NULL;
  struct watcher *watcher;
  napi_valuetype type;
  napi_value name, resource;
  uv_loop_t *loop;
  int fd, events, status;
  if (!take(env, info, 3, &call) || !take_fd(&call, 0, &fd) ||
      !take_int(&call, 1, 0, UV_READABLE | UV_WRITABLE | UV_DISCONNECT | UV_PRIORITIZED, "events", &events))
    return NULL;
  if (napi_typeof(env, call.at[2], &type) != napi_ok || type != napi_function)
    return fail_argument(env, "the callback must be a function");
  if (napi_get_instance_data(env, (void **)&all) != napi_ok || napi_get_uv_event_loop(env, &loop) != napi_ok ||
      napi_create_string_utf8(env, "midair.watcher", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_object(env, &resource) != napi_ok)
    return NULL;
  if (all->last_id == UINT32_MAX) return fail(env, "uv_poll_init", ENOMEM);
  watcher = calloc(1, sizeof *watcher);
  if (watcher == NULL) return fail(env, "uv_poll_init", ENOMEM);
  status = uv_poll_init(loop, &watcher->poll, fd);
  if (status < 0) {
    free(watcher);
    return fail(env, "uv_poll_init", -status);
  }
  watcher->poll.data = watcher;
  watcher->all = all;
  watcher->id = ++all->last_id;
  watcher->next = all->first;
  all->first = watcher;
  if (napi_create_reference(env, call.at[2], 1, &watcher->callback) != napi_ok ||
      napi_async_init(env, resource, name, &watcher->context) != napi_ok) {
    unlink_and_close(watcher);
    return fail(env, "uv_poll_init", ENOMEM);
  }
  status = events == 0 ? 0 : uv_poll_start(&watcher->poll, events, on_poll);
  if (status < 0) {
    unlink_and_close(watcher);
    return fail(env, "uv_poll_start", -status);
  }
  return number(env, watcher->id);
}

/* rewatch(watcher, events): 0 pauses */
static napi_value Rewatch(napi_env env, napi_callback_info info) {
  struct call call;
  struct watcher *watcher;
  int events, status;
  if (!take(env, info, 2, &call)) return NULL;
  watcher = find(env, &call);
  if (watcher == NULL ||
      !take_int(&call, 1, 0, UV_READABLE | UV_WRITABLE | UV_DISCONNECT | UV_PRIORITIZED, "events", &events))
    return NULL;
  status = events == 0 ? uv_poll_stop(&watcher->poll) : uv_poll_start(&watcher->poll, events, on_poll);
  if (status < 0) return fail(env, "uv_poll_start", -status);
  return nothing(env);
}

/* keepAlive(watcher, on): whether it alone keeps the process running */
static napi_value KeepAlive(napi_env env, napi_callback_info info) {
  struct call call;
  struct watcher *watcher;
  bool on;
  if (!take(env, info, 2, &call)) return NULL;
  watcher = find(env, &call);
  if (watcher == NULL) return NULL;
  if (napi_get_value_bool(env, call.at[1], &on) != napi_ok) return fail_argument(env, "on must be a boolean");
  if (on)
    uv_ref((uv_handle_t *)&watcher->poll);
  else
    uv_unref((uv_handle_t *)&watcher->poll);
  return nothing(env);
}

/* unwatch(watcher): call it before the descriptor is closed */
static napi_value Unwatch(napi_env env, napi_callback_info info) {
  struct call call;
  struct watcher *watcher;
  if (!take(env, info, 1, &call)) return NULL;
  watcher = find(env, &call);
  if (watcher == NULL) return NULL;
  unlink_and_close(watcher);
  return nothing(env);
}

NAPI_MODULE_INIT() {
  static const struct {
    const char *name;
    napi_callback function;
  } functions[] = {
      {"send", Send},           {"receive", Receive},         {"unixListen", UnixListen}, {"unixConnect", UnixConnect},
      {"accept", Accept},       {"tcpListen", TcpListen},     {"tcpPort", TcpPort},       {"socketPair", SocketPair},
      {"peer", Peer},           {"read", Read},               {"write", Write},           {"close", Close},
      {"duplicate", Duplicate}, {"openTty", OpenTty},         {"openPty", OpenPty},       {"ttyIsRaw", TtyIsRaw},
      {"timerSet", TimerSet},   {"timerCreate", TimerCreate}, {"timerRead", TimerRead},   {"setFifo", SetFifo},
      {"pidfdOpen", PidfdOpen}, {"pidfdSignal", PidfdSignal}, {"tcpPosition", TcpPosition},
      {"watch", Watch},         {"rewatch", Rewatch},         {"unwatch", Unwatch},       {"keepAlive", KeepAlive},
  };
  struct watchers *all = calloc(1, sizeof *all);
  if (all == NULL) return fail(env, "calloc", ENOMEM);
  all->env = env;
  if (napi_set_instance_data(env, all, NULL, NULL) != napi_ok ||
      napi_add_async_cleanup_hook(env, on_environment_end, all, &all->cleanup) != napi_ok) {
    free(all);
    return fail(env, "napi_add_async_cleanup_hook", ENOMEM);
  }
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, NULL, &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
      return NULL;
  }
  return exports;
}
