/* mj_image: kinds by their first bytes and by a header's word. */
#include "download/image.h"
#include "mj_test.h"

typedef struct sample {
    mj_image kind;
    const char *head; /* so much of a real file that it is known by */
    size_t n, needed; /* bytes there, and bytes without which it can't be told */
    const char *type, *ext;
} sample;

static const sample samples[] = {
    {MJ_IMAGE_PNG, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16, 8, "image/png", "png"},
    {MJ_IMAGE_JPEG, "\xff\xd8\xff\xe0\0\x10JFIF\0\1", 12, 3, "image/jpeg", "jpg"},
    {MJ_IMAGE_JPEG,
     "\xff\xd8\xff\xe1\0\x10"
     "Exif\0\0",
     12, 3, "image/jpeg", "jpg"},
    {MJ_IMAGE_WEBP, "RIFF\x24\0\0\0WEBPVP8 ", 16, 12, "image/webp", "webp"},
    {MJ_IMAGE_WEBP, "RIFF\xff\xff\xff\xffWEBPVP8L", 16, 12, "image/webp", "webp"},
    {MJ_IMAGE_GIF, "GIF89a\1\0\1\0\0\0", 12, 6, "image/gif", "gif"},
    {MJ_IMAGE_GIF, "GIF87a\1\0\1\0\0\0", 12, 6, "image/gif", "gif"},
};

/* Of a copy that is no longer than n: a sanitizer sees what is read beyond it. */
static mj_image kind_of(const char *head, size_t n)
{
    unsigned char *copy = malloc(n ? n : 1);
    mj_image kind;

    CHECK(copy != NULL);
    memcpy(copy, head, n);
    kind = mj_image_of(copy, n);
    free(copy);
    return kind;
}

TEST("each kind is known by its first bytes, from as many on as tell it, and never by fewer")
{
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        const sample *s = &samples[i];
        for (size_t n = 0; n <= s->n; n++) {
            CHECK_INT(kind_of(s->head, n), n >= s->needed ? s->kind : MJ_IMAGE_NONE);
            /* also when the right bytes lie beyond */
            CHECK_INT(mj_image_of((const unsigned char *)s->head, n), n >= s->needed ? s->kind : MJ_IMAGE_NONE);
        }
        CHECK(s->needed <= MJ_IMAGE_HEAD);
    }
}

TEST("one wrong bit in what tells a kind makes it none")
{
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        const sample *s = &samples[i];
        for (size_t at = 0; at < s->needed; at++) {
            if (s->kind == MJ_IMAGE_WEBP && at >= 4 && at < 8) /* its length */
                continue;
            for (int bit = 0; bit < 8; bit++) {
                char head[16];
                memcpy(head, s->head, s->n);
                head[at] = (char)(head[at] ^ 1 << bit);
                CHECK_INT(kind_of(head, s->n), MJ_IMAGE_NONE);
            }
        }
    }
}

TEST("near misses are none: other containers, text, markup, images in the wrong place")
{
    static const struct {
        const char *head;
        size_t n;
    } heads[] = {
        {"RIFF\x24\0\0\0WAVEfmt ", 16},
        {"RIFX\x24\0\0\0WEBPVP8 ", 16},
        {"RIFFWEBP\0\0\0\0\0\0\0\0", 16},
        {"GIF88a\1\0\1\0\0\0", 12},
        {"gif89a\1\0\1\0\0\0", 12},
        {"\xff\xd8\xfe\xe0\0\x10JFIF", 10},
        {"\x89PNG\n\x1a\n\0\0\0\rIH", 13},
        {"\x8aMNG\r\n\x1a\n\0\0\0\r", 12},
        {"<svg xmlns=\"htt", 15},
        {"<!DOCTYPE html>", 15},
        {"\0\0\0\x1c"
         "ftypavif",
         12},
        {"BM\x36\0\0\0\0\0\0\0\0\0", 12},
        {"II*\0\0\0\0\0\0\0\0\0", 12},
        {"%PDF-1.7\n%\xe2\xe3", 12},
        {" \x89PNG\r\n\x1a\n\0\0\0", 12},
        {"\0\xff\xd8\xff\xe0\0\0\0\0\0\0\0", 12},
        {"\xef\xbb\xbfGIF89a\0\0\0", 12},
        {"\0\0\0\0\0\0\0\0\0\0\0\0", 12},
        {"#!/bin/sh\nrm ", 13},
        {"PK\3\4\0\0\0\0\0\0\0\0", 12},
    };

    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        if (kind_of(heads[i].head, heads[i].n) != MJ_IMAGE_NONE)
            MJ_TEST_FAIL("number %zu is taken for an image", i);
}

TEST("nothing at all is no image")
{
    CHECK_INT(mj_image_of(NULL, 0), MJ_IMAGE_NONE);
}

TEST("a content type is one of them in any case, and whatever its parameters")
{
    static const char *const good[] = {
        "image/png",
        "image/jpeg",
        "image/jpg",
        "image/webp",
        "image/gif",
        "IMAGE/PNG",
        "Image/WebP",
        "image/png;",
        "image/png; charset=binary",
        "image/jpeg;q=1;x=\"image/svg+xml\"",
        "image/gif ; a=b",
        "image/webp\t;a=b",
        "image/png ",
    };

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!mj_image_named(good[i]))
            MJ_TEST_FAIL("\"%s\" is refused", good[i]);
}

TEST("a content type that is not one of them is none, however near")
{
    static const char *const bad[] = {
        "",
        ";",
        " ",
        "image",
        "image/",
        "png",
        "image/pn",
        "image/pngx",
        "image/png,image/svg+xml",
        "image/svg+xml",
        "image/*",
        "*/*",
        "text/html",
        "text/html; image/png",
        "application/octet-stream",
        "image/avif",
        "image/bmp",
        "image/tiff",
        " image/png",
        "image /png",
        "image/p\xc4\xb1ng",
        "ximage/png",
        "image/jpegs",
        "image/x-png",
    };

    CHECK(!mj_image_named(NULL));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (mj_image_named(bad[i]))
            MJ_TEST_FAIL("\"%s\" is taken for an image", bad[i]);
}

TEST("each kind has an end for a file's name and a type that is one of them; none has neither")
{
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        CHECK_STR(mj_image_ext(samples[i].kind), samples[i].ext);
        CHECK_STR(mj_image_type(samples[i].kind), samples[i].type);
        CHECK(mj_image_named(mj_image_type(samples[i].kind)));
    }
    CHECK_STR(mj_image_ext(MJ_IMAGE_NONE), "");
    CHECK_STR(mj_image_type(MJ_IMAGE_NONE), "");
    CHECK(!mj_image_named(mj_image_type(MJ_IMAGE_NONE)));
}
