"""Bytes of crawl files, decompressed frame by frame, with the place of every byte.

`compression` knows the codecs, `frames` the members of a compressed file, `frame_boundaries` where a file may be
entered in the middle, `decoded_stream` the window that formats read from, `transcoded` UTF-16 as UTF-8; `http_body`
undoes the encodings of an HTTP response. Public: `frames.Frames`, `decoded_stream.Decoded`, `http_body`.
"""
