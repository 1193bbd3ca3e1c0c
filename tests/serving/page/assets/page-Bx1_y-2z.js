document.title = "A page as small as one can be, whose script is a little longer so that gzip has something to do, to do, to do";
