/* stpm: scores images with a bundle written by `stpm-export`, as `stpm-run` does. C99.
 *
 *     stpm_detector *detector = NULL;
 *     if (stpm_open("bottle.stpm", NULL, &detector) != STPM_OK) {
 *         fprintf(stderr, "%s\n", stpm_last_error(detector));
 *         stpm_close(detector);
 *         return 1;
 *     }
 *     stpm_image image = {pixels, height, width, 0, STPM_RGB};
 *     stpm_result result = {0};
 *     if (stpm_run(detector, &image, 1, &result) == STPM_OK)
 *         printf("%s %g\n", result.is_anomalous ? "ANOMALOUS" : "ok", result.score);
 *     stpm_close(detector);
 *
 * Threads: any number may call stpm_run, stpm_submit, stpm_wait, stpm_get_info, stpm_hash_image and
 * stpm_last_error on one detector at once. Call stpm_close only when no other call is running.
 * Memory: the caller owns every buffer that it passes, and the library keeps no pointer to it
 * after a call has returned. Strings that the library returns are valid until stpm_close.
 * Nothing is printed, no exception leaves the library, and it never ends the process.
 */
#ifndef STPM_H
#define STPM_H

#include <stddef.h>
#include <stdint.h>

#if defined(STPM_STATIC)
#define STPM_API
#elif defined(_WIN32) && defined(STPM_BUILD)
#define STPM_API __declspec(dllexport)
#elif defined(_WIN32)
#define STPM_API __declspec(dllimport)
#else
#define STPM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Increases when programs must be recompiled; it is the library's SOVERSION. */
#define STPM_API_VERSION 1

typedef struct stpm_detector stpm_detector;

typedef enum stpm_status {
    STPM_OK = 0,
    STPM_ERROR_ARGUMENT = 1, /* a call that this header does not allow */
    STPM_ERROR_BUNDLE = 2,   /* the bundle is missing, malformed, modified or of another version */
    STPM_ERROR_ENGINE = 3,   /* the engine is not in this build, or it failed */
    STPM_ERROR_PARITY = 4,   /* the engine does not reproduce the bundle's golden images */
    STPM_ERROR_IMAGE = 5,    /* an image does not fit; the call gives no result */
    STPM_ERROR_BUFFER = 6,   /* a buffer of the caller is too small */
    STPM_ERROR_MEMORY = 7,   /* out of memory */
    STPM_ERROR_TIMEOUT = 8,  /* the queue stayed full, or the result is not ready */
    STPM_ERROR_INTERNAL = 9  /* anything else: please report it */
} stpm_status;

typedef struct stpm_options {
    size_t struct_size; /* sizeof(stpm_options) */
    const char *engine; /* NULL: the first engine of this build that the bundle lists */
    int32_t threads;    /* CPU threads per run; 0 leaves the choice to the engine */
    int32_t queue;      /* images between stpm_submit and stpm_wait, 1 to 1024; 0 means 8 */
} stpm_options;

typedef struct stpm_info {
    size_t struct_size;                  /* in: sizeof(stpm_info) */
    const char *name;                    /* of the model */
    const char *engine;                  /* in use */
    const char *precision;               /* "fp32", "fp16", "bf16" or "int8" */
    int32_t input_height, input_width;   /* pixels */
    int32_t resizes;                     /* 0: only images of exactly that size are accepted */
    int32_t map_height, map_width;       /* of an anomaly map */
    int32_t smallest_batch, largest_batch;
    double threshold;                    /* an image with a higher score is anomalous */
    double pixel_threshold;              /* a pixel with a higher map value is anomalous */
    int32_t roi_count;                   /* regions of interest; 0: the whole image counts */
    int32_t input_channels;              /* 3: RGB; 1: grey, and only equal colours are taken */
} stpm_info;

typedef enum stpm_format {
    STPM_GREY = 0,
    STPM_RGB = 1,
    STPM_BGR = 2,
    STPM_RGBA = 3, /* alpha is ignored */
    STPM_BGRA = 4,
    /* 16-bit samples in the processor's byte order, at any address. The bundle's bit depth is
     * their full scale; higher values are refused. */
    STPM_GREY16 = 5,
    STPM_RGB16 = 6,
    STPM_BGR16 = 7,
    STPM_RGBA16 = 8,
    STPM_BGRA16 = 9
} stpm_format;

typedef struct stpm_image {
    const uint8_t *pixels; /* of the top row; cast a pointer to 16-bit samples */
    int32_t height, width; /* pixels */
    ptrdiff_t stride;      /* bytes from a row to the one below; negative: bottom-up; 0: no gaps */
    int32_t format;        /* an stpm_format */
} stpm_image;

typedef struct stpm_region {
    int32_t top, left, bottom, right; /* in pixels of the image; bottom and right are exclusive */
    double area;                      /* in pixels of the image */
    float peak;                       /* highest map value */
} stpm_region;

typedef enum stpm_verdict {
    STPM_VERDICT_OK = 0,
    STPM_VERDICT_WARN = 1, /* put the part aside for inspection */
    STPM_VERDICT_ANOMALOUS = 2,
    /* The bundle aligns parts and this one was not found, so it was not scored: its score is
     * FLT_MAX, its map 0 and is_anomalous 1, so that a caller who checks any of them rejects it. */
    STPM_VERDICT_UNALIGNED = 3
} stpm_verdict;

typedef struct stpm_roi {
    const char *name;
    double score;     /* of this region's pixels alone */
    double threshold; /* a region of interest with a higher score is anomalous */
    int32_t verdict;  /* an stpm_verdict; the image's verdict is the worst of its regions' */
} stpm_roi;

typedef struct stpm_result {
    /* In: the caller's buffers; NULL and 0 if not wanted. */
    float *map;             /* map_height * map_width values, rows from the top */
    size_t map_capacity;    /* values */
    stpm_region *regions;   /* 8-connected pixels above the pixel threshold, highest peak first */
    size_t region_capacity; /* regions */
    /* Out. */
    size_t region_count; /* all regions of the image, even if more than region_capacity */
    double threshold;
    float score;
    int32_t is_anomalous; /* 1 when the score is above the threshold, else 0 */
    /* In: as above. */
    stpm_roi *rois; /* the bundle's regions of interest, in its order */
    size_t roi_capacity;
    /* Out. */
    size_t roi_count; /* all of the bundle, even if more than roi_capacity */
} stpm_result;

typedef struct stpm_drift stpm_drift;

typedef enum stpm_drift_test {
    STPM_DRIFT_SCORE = 0,
    STPM_DRIFT_BRIGHTNESS = 1,
    STPM_DRIFT_SHARPNESS = 2,
    STPM_DRIFT_SATURATION = 3,
    STPM_DRIFT_TESTS = 4
} stpm_drift_test;

typedef struct stpm_drift_state {
    double log10_evidence[STPM_DRIFT_TESTS]; /* for a change; 3 means odds of 1000 to 1 */
    int32_t alarms; /* bit 1 << stpm_drift_test is set once that test has detected a change */
} stpm_drift_state;

/* Open a bundle: check it, load the engine, replay the golden images. Takes a second or more.
 *
 * path      the folder NAME.stpm, in UTF-8
 * options   NULL, or all zero but struct_size, for the defaults
 * detector  out; also set when opening fails, so that stpm_last_error can give the reason: close
 *           it in any case. NULL only after STPM_ERROR_ARGUMENT or STPM_ERROR_MEMORY
 */
STPM_API stpm_status stpm_open(const char *path, const stpm_options *options,
                               stpm_detector **detector);

/* Free a detector; submitted images that nobody has waited for are dropped. NULL is ignored. */
STPM_API stpm_status stpm_close(stpm_detector *detector);

/* Describe the detector, with the sizes of the buffers that its results need. */
STPM_API stpm_status stpm_get_info(stpm_detector *detector, stpm_info *info);

/* Score images, and return when done. The images may differ in size and format.
 *
 * count     of images and results; 0 does nothing
 * results   one per image; unspecified when the call fails
 */
STPM_API stpm_status stpm_run(stpm_detector *detector, const stpm_image *images, size_t count,
                              stpm_result *results);

/* Put an image into the queue, for instance from a camera's thread. It is resized before the call
 * returns, and its buffer can then be reused. Waiting images are scored together if the bundle
 * allows a larger batch. Every ticket holds a place in the queue until stpm_wait has returned its
 * result, so cameras wait when the queue is full.
 *
 * timeout_ms  how long to wait for a place; 0: not at all, negative: without limit
 * ticket      out: for stpm_wait
 */
STPM_API stpm_status stpm_submit(stpm_detector *detector, const stpm_image *image,
                                 int32_t timeout_ms, uint64_t *ticket);

/* Wait for the result of a submitted image. After STPM_ERROR_TIMEOUT, STPM_ERROR_BUFFER and
 * STPM_ERROR_ARGUMENT the ticket is still valid; after anything else it is used up. */
STPM_API stpm_status stpm_wait(stpm_detector *detector, uint64_t ticket, int32_t timeout_ms,
                               stpm_result *result);

/* Return the verdict for a score of this detector, an stpm_verdict; STPM_VERDICT_WARN only if the
 * bundle has a warning limit. */
STPM_API stpm_status stpm_judge(stpm_detector *detector, float score, int32_t *verdict);

/* Start testing whether scores, light or focus have changed since calibration, as stpm-live does.
 *
 * level     probability of any false alarm, however long the test runs, in (0, 1); usually 0.001
 * drift     out: for one camera; use it in one thread at a time, and close it before the detector
 */
STPM_API stpm_status stpm_drift_open(stpm_detector *detector, double level, stpm_drift **drift);

/* Take the next image and its score; leave out images with the verdict STPM_VERDICT_UNALIGNED. After
 * an error, ask stpm_last_error of the detector. */
STPM_API stpm_status stpm_drift_update(stpm_drift *drift, const stpm_image *image, float score,
                                       stpm_drift_state *state);

/* Free a test. NULL is ignored. */
STPM_API stpm_status stpm_drift_close(stpm_drift *drift);

#define STPM_SHA256_SIZE 65 /* 64 hex digits and a 0 */
/* Hash an image as a record of stpm-live does: SHA-256 of "HEIGHTxWIDTH:" and of its RGB bytes,
 * converted to 8 bits. sha256: STPM_SHA256_SIZE characters. */
STPM_API stpm_status stpm_hash_image(stpm_detector *detector, const stpm_image *image, char *sha256);

/* Hash bytes, such as a line of such a record, or the manifest.json of a bundle. */
STPM_API stpm_status stpm_hash_bytes(const void *bytes, size_t size, char *sha256);

/* Return one sentence on the calling thread's last failed call on this detector: what was wrong
 * and how to fix it. Valid until that thread's next failed call. */
STPM_API const char *stpm_last_error(stpm_detector *detector);

/* Name a status in a few words. */
STPM_API const char *stpm_status_string(stpm_status status);

/* Return the STPM_API_VERSION that the library was built with. */
STPM_API uint32_t stpm_api_version(void);

#ifdef __cplusplus
}
#endif

#endif
