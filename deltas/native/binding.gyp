{
  "targets": [
    {
      "target_name": "moves",
      "sources": ["moves.c"],
      "defines": ["NAPI_VERSION=8"],
      "cflags_c": ["-std=gnu17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-fstack-protector-strong"]
    }
  ]
}
