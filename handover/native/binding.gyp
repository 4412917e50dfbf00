{
  "targets": [
    {
      "target_name": "descriptors",
      "sources": ["descriptors.c"],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE"],
      "cflags_c": ["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-fstack-protector-strong"]
    }
  ]
}
